"""A Django project of one page: its settings and its URLs."""

from django.http import HttpResponse
from django.urls import path

SECRET_KEY = "of the tests"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "django_site"

urlpatterns = [path("own", lambda _: HttpResponse("own"))]
