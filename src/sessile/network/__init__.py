"""The replication core on real sockets: links, TLS, discovery, and the loop that turns effects into IO."""
