"""Pictures and pages made of a run."""
