"""What the customer wants: rules, classifier, model, in that order."""
