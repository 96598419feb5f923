"""Pages for browsers, and the JavaScript module with which other pages talk to an agent."""
