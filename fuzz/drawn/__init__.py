"""Small random networks, drawn from the operator table, and what must hold for each of them.

templates   what may be drawn: lines of forward by operator
draw        seed -> Program, by running each line in PyTorch at three sizes
program     Program: readable source; its network and inputs
compare     two outputs, or a model before and after
check       Program -> Outcome: every engine and file against PyTorch
shrink      the fewest lines that still show a finding
pool        checks many seeds in other processes, which may crash
"""
