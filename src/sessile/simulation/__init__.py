"""A seeded virtual world in which the real engine and the real replication core run under faults."""
