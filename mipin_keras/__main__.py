"""``python -m mipin_keras``: see :mod:`mipin_keras.cli.main`."""

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
