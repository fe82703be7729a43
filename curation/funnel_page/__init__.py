"""Parts of the funnel page: thresholds of keeps, distributions of scores, drawings, sections."""
