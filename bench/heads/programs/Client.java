// Sends requests with the JDK's HttpClient: java Client.java BASE SECONDS CASE...
//
// A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
// cases are sent in turn for SECONDS, or twice if that is 0; the number of answers is printed.
// With its defaults, the client offers an upgrade to HTTP/2 (h2c) at a plain http address.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Arrays;

public class Client {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        long nanoseconds = (long) (Double.parseDouble(arguments[1]) * 1e9);
        long begin = System.nanoTime();
        int count = 0;
        for (int turn = 0; nanoseconds == 0 ? turn < 2 : System.nanoTime() - begin < nanoseconds; turn++) {
            for (String given : Arrays.copyOfRange(arguments, 2, arguments.length)) {
                String[] parts = given.split("\\|", -1);
                var body = parts[4].isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(parts[4]);
                var request = HttpRequest.newBuilder(URI.create(arguments[0] + parts[1]));
                if (!parts[2].isEmpty()) request.header(parts[2], parts[3]);
                client.send(request.method(parts[0], body).build(), BodyHandlers.ofString());
                count++;
            }
        }
        System.out.println(count);
    }
}
