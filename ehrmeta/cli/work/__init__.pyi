"""Public names of this package, imported when they are first read."""

from ehrmeta.cli.work.checking import check_file as check_file
from ehrmeta.cli.work.choices import CHOICES as CHOICES
from ehrmeta.cli.work.demo import list_data_sets as list_data_sets, run_demo as run_demo
from ehrmeta.cli.work.evaluating import evaluate_model as evaluate_model
from ehrmeta.cli.work.fitting import fit_model as fit_model
from ehrmeta.cli.work.inspecting import describe_file as describe_file
from ehrmeta.cli.work.predicting import adapt_model as adapt_model, predict_rows as predict_rows
from ehrmeta.cli.work.reporting import write_report as write_report
from ehrmeta.cli.work.running import guarded as guarded
from ehrmeta.cli.work.searching import search_settings as search_settings
