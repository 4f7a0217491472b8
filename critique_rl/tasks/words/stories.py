"""Which questions tell one story: they belong to one split.

SVAMP's questions are variations of others, ASDiv's among them: the same sentences with other
numbers, or another question at the end. Split by its text alone, a question of the test would be
told in training with other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAME_STORY = 0.6
"""Share of the words, of those in either question, that two of one story have in common."""


def story_keys(questions: Sequence[str]) -> list[str]:
    """For each question the first one, in the order of the alphabet, of those that share its story.

    Stories are joined through a third one that is near to both.
    """
    # Imported here: commands that answer at once load this module.
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    words = [set(re.findall(r"[a-z]+", question.lower())) for question in questions]
    vocabulary = sorted(set().union(*words))
    columns = {word: column for column, word in enumerate(vocabulary)}
    has_word = np.zeros((len(words), len(columns)))
    for row, row_words in enumerate(words):
        for word in row_words:
            has_word[row, columns[word]] = 1
    common = has_word @ has_word.T
    sizes = has_word.sum(1)
    either = sizes[:, None] + sizes - common
    _, stories = connected_components(common > SAME_STORY * either)
    first: dict[int, str] = {}
    for story, question in zip(stories, questions, strict=True):
        first[story] = min(question, first.get(story, question))
    return [first[story] for story in stories]
