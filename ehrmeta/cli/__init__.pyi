"""Public names of this package, imported when they are first read."""

from ehrmeta.cli.demo import run_demo as run_demo
from ehrmeta.cli.evaluate import evaluate_model as evaluate_model, write_report as write_report
from ehrmeta.cli.fit import check_file as check_file, fit_model as fit_model
from ehrmeta.cli.inspect import describe_file as describe_file, list_data_sets as list_data_sets
from ehrmeta.cli.messages import guarded as guarded
from ehrmeta.cli.predict import adapt_model as adapt_model, predict_rows as predict_rows
from ehrmeta.cli.privacy import audit_membership as audit_membership, verify_log as verify_log
from ehrmeta.cli.score import score_parts as score_parts
from ehrmeta.cli.serve import serve_model as serve_model
from ehrmeta.cli.tune import search_settings as search_settings
