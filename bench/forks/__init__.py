"""What is played over a fork: a site whose users are known, in a process that forks while it serves."""
