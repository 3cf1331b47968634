"""PatternNet and PatternAttribution."""
