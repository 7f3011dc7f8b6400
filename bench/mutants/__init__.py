"""`make mutants`: small faults are put into the code one at a time, and the tests must fail for each.

A mutant is the source with one edit. cosmic-ray makes them (`generate.py`, in an environment of its own), a list of ours
adds those that a review once found to survive (`handmade.toml`), and each runs against the tests that execute the edited
function, quickest first, until one fails. What no test notices is a survivor: a test is missing, or the edit changes
nothing that anybody could observe, which `equivalent.toml` then says with the reason.

`warm.py` is what makes it quick: a process that has imported and collected everything is forked for each mutant, and only
the code of the edited function is replaced. Edits outside of functions need a copy of the tree (`cold.py`).
"""
