"""What connects memories with other libraries; each module needs an extra."""
