"""Attacks on the server and its data folder: `make torture`, and a few rounds of each in the tests.

Each attack says how many rounds it tried and what was lost; the programs under attack run as users run them,
but for sizes that are made small so that few events meet all edges (`small`).
"""
