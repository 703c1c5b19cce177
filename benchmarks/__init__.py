"""The benchmarks: where greentaps stands beside what its users would pick instead.

``make bench`` runs all of them; docs/performance.rst says how to read what comes of it.

=============  ====================================================================
load.c         the load generator
limit.c        servers in C: the limit of the machine
servers.py     one server program for every library, callback or blocking style
initiators.py  one program that opens connections, for every library
questions.py   which of these are compared, and in what: a table
targets.py     the ratios that greentaps means to reach: a table
measuring.py   processes, what they cost, and rounds
figures.py     medians and ratios (pure)
report.py      tables and the chart (pure)
run.py         the command that does it all
check.py       instruction counts of the hot paths, against the recorded ones
=============  ====================================================================
"""
