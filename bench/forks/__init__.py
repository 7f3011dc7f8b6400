"""For `make show NAME=forks`: a site whose users are known, in a process that forks while it serves."""
