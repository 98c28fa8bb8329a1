"""The starter models under Carpool, beside the same models under OpenVINO GenAI and plain OpenVINO."""
