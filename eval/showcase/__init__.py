"""What ``make demo`` shows: one policy run in eight ways, in a world that waits and in one that does not."""
