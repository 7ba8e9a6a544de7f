"""What a policy does to labelled images: their scores, figures of them, and reports."""
