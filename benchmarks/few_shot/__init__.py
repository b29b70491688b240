"""The field's few-shot protocols: sinusoids and digits."""
