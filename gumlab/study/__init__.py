"""Many runs: methods, grids, studies, intervals, the paper's numbers and claims, the demo."""
