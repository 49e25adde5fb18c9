"""Intent detection: rules, classifiers and a model, in that order."""
