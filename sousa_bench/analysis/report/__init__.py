"""What the analysis writes and prints: answer, summary, page, terminal."""
