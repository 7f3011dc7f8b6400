"""What the promises about ended sessions share: a service on every kind of server, its stores, and requests with old cookies."""
