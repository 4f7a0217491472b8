"""Answers that are programs: read, run in a sandbox, and judged by tests.

extract         the program in an answer
tests_column    the tests of a row
comparisons     a test's comparisons, in which no side decides alone; stands alone
harness         runs one program and its tests; stands alone
server          a warm parent inside the sandbox: one forked child per program
sandbox         starts the server inside bubblewrap, and asks it
judge           the function of a verifier's worker
verifier        `verifier: {kind: tests}`
"""
