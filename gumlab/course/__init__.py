"""What only the notebooks and the class need: session, plots, explorers, checks, release."""
