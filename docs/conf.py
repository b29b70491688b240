"""How Sphinx builds the site: `make docs`."""

import sys
import warnings
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import ehrmeta
from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.ranges import declared_ranges
from ehrmeta.tuning.summary import declared_table

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ehrmeta"
extensions = [
    "mathml",
    "public_names",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header"]  # sections taken out of the README begin at its level

html_theme = "furo"
html_title = "ehrmeta"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

default_role = "name"
python_maximum_signature_line_length = 88
autodoc_typehints = "none"  # docstrings give shapes and units, which types do not
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

# A room's page lists the names of its `__all__`, each under the path that users import it from.
autosummary_ignore_module_all = False
autosummary_context = {
    "exported": set(ehrmeta.__all__),
    "titles": {
        "ehrmeta.data": "Tables and data",
        "ehrmeta.estimators": "Estimators",
        "ehrmeta.algorithms": "Algorithms",
        "ehrmeta.baselines": "Baselines",
        "ehrmeta.treatment": "Treatment response",
        "ehrmeta.evaluation": "Scores and protocols",
        "ehrmeta.report": "Pictures and reports",
        "ehrmeta.tuning": "Tuning",
        "ehrmeta.loading": "Saved files",
        "ehrmeta.errors": "Errors and warnings",
        "ehrmeta.nn": "Networks and likelihoods",
        "ehrmeta.training": "Training",
        "ehrmeta.persistence": "Model files",
    },
}
templates_path = ["_templates"]

sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/\d\d_",  # those on tuning start searches and processes: shown, not run
    "default_thumb_file": str(Path(__file__).parent / "_static" / "script.svg"),
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,  # its page loads scripts from elsewhere
    "doc_module": ("ehrmeta",),
}


def list_ranges(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the ranges that classes declare where the guide to tuning marks their place."""
    parts = [ehrmeta.MetaRegressor, ehrmeta.MLP, *filter(declared_ranges, ALGORITHMS.values())]
    source[0] = source[0].replace("<!-- declared ranges -->", declared_table(parts))


def skip_what_sklearn_adds(app: Sphinx, what: str, name: str, *_: object) -> bool | None:
    """Leave out ``set_fit_request`` and the like, which scikit-learn gives to every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def say_what_a_constant_holds(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Its names, or the type it stands for: not the docstring of every dict or tuple."""
    if what == "data":
        names = value if isinstance(value, dict | tuple) else [value]
        lines[:] = [", ".join(f"``{name}``" for name in names)]


def format_warning(message: Warning | str, category: type[Warning], *_: object) -> str:
    """As a reader of a tutorial needs it: without a path on the machine that built the site."""
    return f"{category.__name__}: {message}\n"


def setup(app: Sphinx) -> None:
    """What no setting says."""
    app.connect("source-read", list_ranges)
    app.connect("autodoc-skip-member", skip_what_sklearn_adds)
    app.connect("autodoc-process-docstring", say_what_a_constant_holds)
    app.add_lexer("csv", TextLexer)
    warnings.formatwarning = format_warning
