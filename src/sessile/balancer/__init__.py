"""The balancer: HTTP/1.1 over several servers, every user on theirs.

Pure are `affinity algorithms health requests request_fields responses bodies phases refusals settings`; sockets are
touched by `upstream client servers checks worker server`. A request is read by `client`, judged by `requests`, placed
by `servers`, carried by `upstream`; `worker` holds them together, `server` runs workers as processes.
"""
