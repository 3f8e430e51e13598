"""The dialects of MySQL and MariaDB."""
