"""From runs to figures: ratios, tables, targets, plots."""
