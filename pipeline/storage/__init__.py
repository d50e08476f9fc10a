"""Files written atomically, objects at URLs, and one writer at a time."""
