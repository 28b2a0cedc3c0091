"""What is read off the runs of Qing et al.?"""

from __future__ import annotations

from mergecore.study.results import Results
from mergecore.study.sections import Section


def sections(results: Results) -> list[Section]:
    return []
