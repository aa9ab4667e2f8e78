"""From runs to figures: ratios, tables, targets, pictures."""
