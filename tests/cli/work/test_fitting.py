from ehrmeta import MetaRegressor


def test_fit_keeps_names_units_ranges_and_roles(folder):
    schema = MetaRegressor.load(folder / "hdl.ehrmeta").schema_
    assert (schema.task, schema.time.name, schema.measured) == ("patient", "date", ("crp",))
    outcome = schema.outcome
    assert (outcome.name, outcome.unit, outcome.low, outcome.high) == ("hdl", "mg/dL", 5.0, 200.0)
