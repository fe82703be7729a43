"""What the funnel page is made of: thresholds out of keeps, distributions out of side-cars, drawings, sections."""
