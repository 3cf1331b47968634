"""What the tests of results pages look for: verdicts and numbers that stand together, not whole sentences."""


def mentions(page, *words):
    """Whether some line of a page holds all of the words."""
    return any(all(word in line for word in words) for line in page.splitlines())


def row(page, first):
    """The cells behind the cell ``first`` in the one row of the page's tables that begins with it."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if line[:1] == "|"]
    (found,) = [cells[1:] for cells in rows if cells[0] == first]
    return found
