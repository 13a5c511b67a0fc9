"""All contact with the operating system: its files and locks, its processes, its clocks and its memory."""
