"""Parts of the leaderboard: reading results, standings with intervals, the plot, the page, the exports."""
