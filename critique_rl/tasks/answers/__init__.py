"""How an answer is read: from LaTeX and Markdown to a number, a letter, a short text or a formula.

    plain      LaTeX and Markdown -> one plain text
    marked     where the answer stands: the box, the declared line
    numbers    an exact value with its unit
    letters    the letter of a multiple choice
    phrases    short texts, dates and times
    formulas   lists, tuples, intervals and sets, whose elements a library compares
    choose     the verifier that reads all gold answers of a data set

A form that no rule knows is unreadable. Searches take time linear in the text.
"""
