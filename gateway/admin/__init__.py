"""The admin port: pages for people, the JSON API behind them, and Prometheus's metrics."""
