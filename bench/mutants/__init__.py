"""`make mutants`: small faults are put into the code one at a time, and the tests must fail for each.

A mutant is the source with one edit. cosmic-ray makes the mutants (`generate.py`, in an environment of its own), and a list of
ours adds those that once survived a review (`handmade.toml`). Each mutant runs against the tests that execute the edited
function, quickest first, until one fails. A mutant that no test notices is a survivor: either a test is missing, or the edit
changes nothing that can be observed. `equivalent.toml` lists the latter, each with a reason.

`warm.py` makes it quick: a process that has imported and collected everything is forked for each mutant, and only the code of
the edited function is replaced. Edits outside of functions need a copy of the tree (`cold.py`).
"""
