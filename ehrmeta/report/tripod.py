"""TRIPOD+AI: what a report of a prediction model must say, and what of it this one can say.

The items have their official numbers and our own, shorter words.
"""

from __future__ import annotations

from collections.abc import Mapping

from ehrmeta.errors import DataError
from ehrmeta.report.document import TextTable

__all__ = ["ASKED", "tripod_table"]

#: item of the checklist: where this report says it, "" where only the authors can
_ITEMS = {
    "1 Title: a study that develops or evaluates a prediction model": "Title",
    "2 Abstract": "",
    "3a Health context and why the model is wanted": "",
    "3b Target population and intended use in the care pathway": "",
    "3c Known health inequalities between groups": "",
    "4 Objectives: development, evaluation, or both": "",
    "5a Sources of data, and whom they represent": "",
    "5b Dates of data": "",
    "6a Setting: number and location of centres": "",
    "6b Eligibility of participants": "",
    "6c Treatments received": "",
    "7 Data preparation and quality checks": "Data",
    "8a Outcome, its horizon, how and when it was assessed": "",
    "8b Who assessed an outcome that needs judgement": "",
    "8c Blinding of the outcome's assessment": "",
    "9a Choice of predictors before modelling": "",
    "9b Predictors, and how and when they were measured": "Data",
    "9c Who assessed predictors that need judgement": "",
    "10 How the study size was arrived at": "",
    "11 How missing data were handled": "",
    "12a How the data were divided": "",
    "12b How predictors entered the model": "Model card",
    "12c Type of model, its building and internal validation": "Model card",
    "12d How differences between clusters were estimated": "",
    "12e Measures of performance, comparison of models": "Error after k values",
    "12f Updating of the model after evaluation": "",
    "12g How predictions were made in the evaluation": "Error after k values",
    "13 Class imbalance": "not applicable: a numeric outcome",
    "14 Fairness": "Groups of patients",
    "15 Model output": "Model card",
    "16 Differences between development and evaluation data": "",
    "17 Ethical approval and consent": "",
    "18a Funding": "",
    "18b Conflicts of interest": "",
    "18c Protocol": "",
    "18d Registration": "",
    "18e Data sharing": "",
    "18f Code sharing": "",
    "19 Patient and public involvement": "",
    "20a Flow of participants": "Data",
    "20b Characteristics of participants": "",
    "20c Comparison with the development data": "",
    "21 Numbers of participants in each analysis": "Error after k values",
    "22 Full model specification": "Model card",
    "23a Performance with intervals, also in key groups": "Groups of patients",
    "23b Differences in performance between clusters": "",
    "24 Results of updating": "",
    "25 Interpretation": "",
    "26 Limitations": "",
    "27a Handling of poor or missing input at use": "",
    "27b User interaction and expertise needed": "",
    "27c Next steps": "",
}

ASKED = tuple(item for item, place in _ITEMS.items() if not place)


def tripod_table(answers: Mapping[str, str]) -> TextTable:
    """The checklist's items in short: filled by this report, answered by the authors, or missing.

    Parameters
    ----------
    answers : mapping of str to str
        Item number ("5a") to what the authors say.

    References
    ----------
    Collins et al. (2024), doi:10.1136/bmj-2023-078378.

    Examples
    --------
    >>> tripod_table({"17": "Approved."}).rows[31]
    ('17 Ethical approval and consent', 'answered', 'Approved.')
    """
    known = {item.partition(" ")[0] for item in ASKED}
    unknown = sorted(set(answers) - known)
    if unknown:
        raise DataError(f"answers to {unknown} fit no open item. Use {', '.join(sorted(known))}.")
    rows = []
    for item, place in _ITEMS.items():
        answer = answers.get(item.partition(" ")[0], "")
        if place:
            rows.append((item, "filled", place))
        elif answer:
            rows.append((item, "answered", answer))
        else:
            rows.append((item, "missing", "to be answered by the authors"))
    return TextTable("TRIPOD+AI items", ("item", "status", "where, or answer"), tuple(rows))
