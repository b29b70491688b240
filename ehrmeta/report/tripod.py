"""TRIPOD+AI and TRIPOD-Cluster checklists, with the section of a report that covers each item.

Items have their official numbers; their texts are shortened.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ehrmeta.errors import DataError
from ehrmeta.report.document import TextTable

_GROUPS = "Groups of patients"  # if no group is scored, this section covers no item
_ERRORS = "Error after k values"  # of numbers
_IMBALANCE = "13 Class imbalance"

#: Items of TRIPOD+AI, with the section of this report or, if only the authors can answer, "".
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
    "12e Measures of performance, comparison of models": _ERRORS,
    "12f Updating of the model after evaluation": "",
    "12g How predictions were made in the evaluation": _ERRORS,
    _IMBALANCE: "not applicable: a numeric outcome",
    "14 Fairness": _GROUPS,
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
    "21 Numbers of participants in each analysis": _ERRORS,
    "22 Full model specification": "",
    "23a Performance with intervals, also in key groups": _GROUPS,
    "23b Differences in performance between clusters": "",
    "24 Results of updating": "",
    "25 Interpretation": "",
    "26 Limitations": "",
    "27a Handling of poor or missing input at use": "",
    "27b User interaction and expertise needed": "",
    "27c Next steps": "",
}

#: Items of TRIPOD-Cluster, with the numbers of the equivalent TRIPOD+AI items, otherwise as above.
#: Answers to open items are numbered with a C: "C7b".
_CLUSTER_ITEMS = {
    "1 Title: development or validation, population, outcome": ("1",),
    "2 Abstract": ("2",),
    "3a Context, why the model is wanted, advantages of the clustered data": ("3a",),
    "3b Objectives": ("4",),
    "4a Eligibility of participants and of data sets": ("6b",),
    "4b Origin of the data, how they were identified, requested and collected": ("5a",),
    "5 Sample size": ("10",),
    "6a Outcome, how and when it was assessed": ("8a",),
    "6b Predictors, how and when they were measured": ("9b",),
    "7a Cleaning, harmonisation, linkage, quality checks": ("7",),
    "7b How risk of bias in each cluster was assessed": "",
    "7c Differences from the development data": ("16",),
    "7d How missing data were handled": ("11",),
    "8a How predictors were handled": ("12b",),
    "8b Type of model, its building and internal validation": ("12c",),
    "8c How differences of parameters between clusters were handled": ("12d",),
    "8d How predictions were made": ("12g",),
    "8e Measures of performance": ("12e",),
    "8f How differences of performance between clusters were handled": ("12d",),
    "8g Updating of the model, overall or for some settings": ("12f",),
    "9 Planned analyses of subgroups and of sensitivity": _GROUPS,
    "10a Numbers of clusters and participants, from identified to analysed": ("6a", "20a"),
    "10b Characteristics, overall and by source or setting": ("20b",),
    "10c Comparison with the development data": ("20c",),
    "11 Risk of bias in each cluster": "",
    "12a Differences between clusters that changed the model": "",
    "12b Full model specification and its use": ("22",),
    "13a Performance with intervals, overall and in each cluster": ("23a", "23b"),
    "13b Differences of performance between clusters": ("23b",),
    "14 Results of updating, overall and in each cluster": ("24",),
    "15 Results in subgroups and of sensitivity": _GROUPS,
    "16a Interpretation, differences between clusters included": ("25",),
    "16b Comparison with performance in development and earlier validation": "",
    "16c Strengths and limitations": ("26",),
    "17 Use of the model, in which settings and populations": ("27c",),
    "18 Protocol, code and data": ("18c", "18e", "18f"),
    "19 Funding and the part of funders": ("18a",),
}

Row: TypeAlias = tuple[str, str, str]


def tripod_tables(
    answers: Mapping[str, str], *, has_groups: bool, of_classes: bool = False
) -> tuple[TextTable, TextTable]:
    """Items of both checklists: filled by this report, answered by the authors, or missing.

    Parameters
    ----------
    answers : mapping of str to str
        The authors' answers by item number: "5a" of TRIPOD+AI, "C7b" of TRIPOD-Cluster. For an item
        of both checklists, use the number of TRIPOD+AI.
    has_groups : bool
        Whether the report scores groups of patients; otherwise the items on groups are open.
    of_classes : bool
        Whether the outcome is a class; then class imbalance is an item for the authors.

    Raises
    ------
    DataError
        An answer belongs to an unknown item, or to an item that the report fills.

    References
    ----------
    Collins et al. (2024), doi:10.1136/bmj-2023-078378; Debray et al. (2023),
    doi:10.1136/bmj-2022-071018.

    Examples
    --------
    >>> tripod, cluster = tripod_tables({"10": "All records.", "C11": "Low."}, has_groups=True)
    >>> tripod.rows[18], cluster.rows[6]  # doctest: +NORMALIZE_WHITESPACE
    (('10 How the study size was arrived at', 'answered', 'All records.'),
     ('5 Sample size', 'answered', 'see TRIPOD+AI 10'))
    """
    places = {} if has_groups else {_GROUPS: ""}
    if of_classes:
        places |= {_ERRORS: "Scores after k values", _ITEMS[_IMBALANCE]: ""}
    items = {item: places.get(place, place) for item, place in _ITEMS.items()}
    cluster_items = {
        item: places.get(place, place) if isinstance(place, str) else place
        for item, place in _CLUSTER_ITEMS.items()
    }
    open_items = [_number(item) for item, place in items.items() if not place]
    open_items += [f"C{_number(item)}" for item, place in cluster_items.items() if not place]
    unknown = [item for item in answers if item not in open_items]
    if unknown:
        raise DataError(f"answers {unknown} match no open item. Use {', '.join(open_items)}.")
    rows = [_row(item, place, answers.get(_number(item), "")) for item, place in items.items()]
    states = {_number(item): state for item, state, _ in rows}
    cluster = [
        _row(item, place, answers.get(f"C{_number(item)}", ""))
        if isinstance(place, str)
        else (item, _least({states[n] for n in place}), f"see TRIPOD+AI {', '.join(place)}")
        for item, place in cluster_items.items()
    ]
    headings = ("item", "status", "section, or answer")
    clusters = "clusters are hospitals, studies or other settings"
    caption = f"TRIPOD-Cluster items (Debray et al. 2023); {clusters}"
    return (
        TextTable("TRIPOD+AI items (Collins et al. 2024)", headings, tuple(rows)),
        TextTable(caption, headings, tuple(cluster)),
    )


def open_items_text(checklists: Sequence[TextTable]) -> str:
    """Sentence on the items that the authors have not answered."""
    items = [row for table in checklists for row in table.rows]
    missing = sum(row[1] == "missing" for row in items)
    return (
        f"{missing} of {len(items)} items of the reporting checklists still need an answer by the "
        "authors. This is an evaluation on records: it does not show that using the model "
        "benefits patients."
    )


def _number(item: str) -> str:
    return item.partition(" ")[0]


def _row(item: str, place: str, answer: str) -> Row:
    if place:
        return item, "filled", place
    missing = (item, "missing", "to be answered by the authors")
    return (item, "answered", answer) if answer else missing


def _least(states: set[str]) -> str:
    """Status of an item that consists of several others."""
    return next(state for state in ("missing", "answered", "filled") if state in states)
