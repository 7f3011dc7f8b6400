"""A history of HTTP requests to a demo that comes to harm, checked by the simulator's own checkers.

`users` make the requests and record them, `harm` kills and stops servers meanwhile, `ledger` makes of the record what the
simulator calls a history, and `verdict` lets its checkers look at every answer. What no answer tells is found out by the
traces that the demo's app leaves (`sessile.lab.trace`).
"""
