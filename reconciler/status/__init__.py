"""What a node says about itself: report, history, metrics, and the HTTP server that shows them."""
