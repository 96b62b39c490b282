"""How many metres the unit of a capture is, asked of a network that sees in metres."""
