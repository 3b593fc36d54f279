"""Speed, scale and memory, as ratios within one run; README.md says how to rerun them."""
