"""The project's certificate authority: attests pods and signs what it decides, never what they ask."""
