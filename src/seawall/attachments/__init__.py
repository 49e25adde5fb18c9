"""Files that customers send: checked, re-encoded, stored, and given to models."""
