@FunctionalInterface
interface Check {
    void run(Place place) throws Exception;
}
