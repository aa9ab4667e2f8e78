"""From runs to figures: ratios, tables, aims, plots."""
